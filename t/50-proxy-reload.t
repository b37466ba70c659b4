#!/usr/bin/perl
# Guards: a reload applies all of the settings or nothing, in place: under steady load no pairing fails, no pair is closed, every byte is right, while workers come and go; a wrong one says file and line and changes nothing; what needs a restart is said.
use strict;
use warnings;
use ChaosTest;
use HyperTest;
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

my $long = ($ENV{HYPER_LONG} || $ENV{T_MANY});
my $socket = tmp() . '/admin.sock';

# New settings: each pattern is replaced in those of the start, { key => value } of `public` are added.
sub settings {
	my ($p, %set) = @_;
	my $text = $p->{settings};
	for my $key (sort keys %set) {
		$text =~ s/\b$key = [^;]*;/$key = $set{$key};/ or $text =~ s/^public = \{/public = { $key = $set{$key};/m;
	}
	write_file("$p->{dir}/001.cfg", $text);
	return;
}
sub count { my ($p, $re) = @_; return $p->{d}->count_log($re) }
# Sends HUP and waits for its outcome.
sub hup {
	my ($p) = @_;
	my $before = count($p, qr/ (?:info reloaded|error reload_failed) /);
	$p->{d}->signal('HUP');
	wait_until { count($p, qr/ (?:info reloaded|error reload_failed) /) > $before } 20;
	return ($p->log_text =~ / (info reloaded|error reload_failed) /g)[-1];
}

# What is applied, what is not, and what is wrong
{
	my $p = proxy(workers => 2, outer => qq(admin_socket = "$socket";\n));
	my ($a, $b, $session) = $p->pair;
	my @workers = sort(living_workers($p));

	my ($exit, $out, $err) = $p->verb('reload');
	is("$exit $err", '0 ', 'nothing new: exit status 0');
	like($out, qr/^no setting differs/, 'and it is said');

	settings($p, max_pairs_per_operator => 1, table_slots => 128, token_timeout => '4.5', log_level => '"info"');
	($exit, $out, $err) = $p->verb('check', '--diff');
	is("$exit $err", '0 ', 'check --diff: exit status 0');
	like($out, qr/^would change: public\.max_pairs_per_operator 0 -> 1$/m, 'what would change');
	like($out, qr/^needs a restart: public\.table_slots 65536 -> 128$/m, 'what needs a restart');
	my ($a2, $b2, $session2) = $p->pair;
	($exit, $out) = $p->verb('check', '--diff');
	like($out, qr/^over the new limit: public\.max_pairs_per_operator: 1 now/m, 'how many pairs a new limit would be below');
	is(count($p, qr/ reloaded /), 1, 'it changes nothing');
	my ($fresh) = $p->come('');
	settings($p, max_pairs => 1, max_unauthenticated => 1, workers => 1, idle_timeout => '0.001');
	my ($fresh2, $fresh3) = map { $p->come('') } 1, 2;
	my $seen = '';
	ok((wait_until { $seen = ($p->verb('check', '--diff'))[1]; $seen =~ /idle_timeout: 2 pairs/ && $seen =~ /max_unauthenticated: [12] / } 20), 'what connections would be touched') or diag($seen);
	like($seen, qr/^touched: public\.idle_timeout: 2 pairs are silent for longer: they end$/m, 'silent pairs');
	close $_ for $fresh, $fresh2, $fresh3;
	settings($p, max_pairs_per_operator => 1, table_slots => 128, token_timeout => '4.5', log_level => '"info"');
	($exit, $out, $err) = $p->verb('reload');
	is("$exit $err", '0 ', 'reload: exit status 0');
	my $was = ProxyTest::TOKEN_S * HyperTest::slow_factor();
	like($out, qr/^changed: public\.token_timeout $was -> 4\.5$/m, 'what changed');
	like($out, qr/^needs a restart: public\.table_slots 65536 -> 128$/m, 'what needs a restart');
	like($p->log_text, qr/ warn reload_needs_restart key=public\.table_slots before=65536 after=128/, 'the log has it');
	joined($a, $b, 'a pair of before');
	joined($a2, $b2, 'another, over the new limit');
	is_deeply([ sort(living_workers($p)) ], \@workers, 'the same workers');
	my $debug = count($p, qr/ debug /);
	my ($token) = $p->broker;
	my $sock = $p->come($token);
	$p->come($token);
	isnt($p->{d}->wait_log(qr/refused .*reason=quota/), undef, 'the new limit holds');
	is(count($p, qr/ debug /), $debug, 'so does the log level, in all processes');
	like(($p->verb('check', '--diff'))[1], qr/\Aneeds a restart: public\.table_slots 65536 -> 128\n\z/, 'now only what needs a restart differs');

	# each kind of fault
	settings($p);
	is(hup($p), 'info reloaded', 'HUP reloads');
	my $good = $p->{settings};
	my $certs = certs();
	my %wrong = (
		'syntax' => [ "public = {\n  workers = ;\n};\n", qr/001\.cfg:2: / ],
		'unknown key' => [ $good =~ s/workers = /accept_timout = 3.0;\nworkers = /r, qr/001\.cfg:\d+: public\.accept_timout: / ],
		'missing key file' => [ $good =~ s/jsonrpc_server = \{/jsonrpc_server = { tls = { ca_certificate_files = [ "$p->{dir}\/x.crt" ]; certificate_file = "$p->{dir}\/x.crt"; key_file = "$p->{dir}\/x.key"; };/r, qr/001\.cfg:\d+: public\.jsonrpc_server\.tls\.key_file: / ],
		'no group public' => [ qq(admin_socket = "$socket";\n), qr/ why="public: / ],
		'too few descriptors' => [ $good =~ s/workers = 2/max_pairs = 1048576; workers = 2/r, qr/too few descriptors: .*1048576 pairs x 2/ ],
		'key not matching' => [ $good =~ s/jsonrpc_server = \{/jsonrpc_server = { tls = { ca_certificate_files = [ "$certs\/root.crt" ]; certificate_file = "$certs\/hd-1.crt"; key_file = "$certs\/hd-2.key"; };/r, qr/jsonrpc_server.*hd-[12]\.(?:key|crt)/ ],
		'missing certificate' => [ $good =~ s/jsonrpc_server = \{/jsonrpc_server = { tls = { ca_certificate_files = [ "$certs\/root.crt" ]; certificate_file = "$p->{dir}\/gone.crt"; key_file = "$certs\/hd-2.key"; };/r, qr/gone\.crt/ ],
		'value out of range' => [ $good =~ s/workers = 2/workers = 257/r, qr/001\.cfg:\d+: public\.workers: / ],
	);
	for my $kind (sort keys %wrong) {
		my ($text, $re) = @{ $wrong{$kind} };
		write_file("$p->{dir}/001.cfg", $text);
		is(hup($p), 'error reload_failed', "$kind: fails");
		like(join("\n", grep { / error reload_fault / } split /\n/, $p->log_text), $re, "$kind: the log says where");
		my ($code) = $p->verb('reload');
		is($code, 78, "$kind: proxy reload gives 78");
		joined($a, $b, "$kind: the pair");
		my ($t) = $p->broker;
		is(length $t, 32, "$kind: it serves on");
	}
	write_file("$p->{dir}/001.cfg", $good =~ s/\Q$socket\E/$socket.none/r);
	is(($p->verb('reload'))[0], 69, 'nobody serves the socket: 69');
	write_file("$p->{dir}/001.cfg", $good);
	symlink "$p->{dir}/nowhere", "$p->{dir}/002.cfg" or die "symlink: $!";
	is(hup($p), 'error reload_failed', 'a file that cannot be read: fails');
	like(join("\n", grep { / error reload_fault / } split /\n/, $p->log_text), qr/002\.cfg/, 'a file that cannot be read: it is named');
	unlink "$p->{dir}/002.cfg";
	write_file("$p->{dir}/001.cfg", $good =~ s/internal_bind_address = "127\.0\.0\.1:0"/internal_bind_address = "127.0.0.1:1"/r);
	like(($p->verb('reload'))[1], qr/^needs a restart: public\.internal_bind_address "127\.0\.0\.1:0" -> "127\.0\.0\.1:1"$/m, 'another bind address: it is said');
	write_file("$p->{dir}/001.cfg", $good);
	is_deeply([ sort(living_workers($p)) ], \@workers, 'still the same workers');
	is($p->{d}->stop, 0, 'it stops');
}

# Certificates
{
	my $p = proxy(workers => 1, tls => 1, start => 0, outer => qq(admin_socket = "$socket";\n));
	my $c = certs();
	my ($crt, $key) = map { "$p->{dir}/own.$_" } qw(crt key);
	my $put = sub { my ($of) = @_; system('cp', "$c/$of.crt", $crt) == 0 && system('cp', "$c/$of.key", $key) == 0 or die; chmod 0600, $key; };
	$put->('public-proxy-1.ga');
	$p->{settings} =~ s/\Q$c\E\/public-proxy-1\.ga\.(crt|key)/$p->{dir}\/own.$1/g;
	write_file("$p->{dir}/001.cfg", $p->{settings});
	$p->launch;
	require IO::Socket::SSL;
	my $subject = sub {
		my $s = IO::Socket::SSL->new(PeerAddr => '127.0.0.1', PeerPort => $p->{rpc}, SSL_verify_mode => 0,
			SSL_cert_file => "$c/public-proxy-1.ga.crt", SSL_key_file => "$c/public-proxy-1.ga.key") or die "TLS: $!";
		return ($s->get_fingerprint('sha256'), $s);
	};
	my ($was, $open) = $subject->();
	write_file($crt, "no certificate\n");
	my ($exit, $out, $err) = $p->verb('reload');
	is($exit, 78, 'a bad certificate: 78');
	like($err, qr/own\.crt/, 'its file is named');
	is(($subject->())[0], $was, 'the old one is used on');
	$put->('hd-1');
	chmod 0600, $key;
	($exit, $out, $err) = $p->verb('reload');
	is("$exit $err", '0 ', 'another certificate under the same name');
	isnt(($subject->())[0], $was, 'new connections get the new one');
	print $open "POST /nothing HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n";
	like(scalar <$open>, qr/^HTTP\/1\.1 /, 'an open connection goes on');
	is($p->{d}->stop, 0, 'it stops');
}

# Under load
{
	my $p = storm_proxy(workers => 1, outer => qq(admin_socket = "$socket";\n), more => 'max_tokens_per_operator = 5000;');
	my $l = load($p, pairs => 50, churn => 8, rate => 200_000, seconds => 3000, end => 60);
	my @counts = (4, 2, 3, 1, 4, 2);
	my ($wrong, $started, $n) = ('', time, 0);
	for my $i (1 .. ($long ? 200 : 30)) {
		my $workers = $i == 1 ? 1 : $i == 2 ? 4 : $counts[ $i % @counts ];
		settings($p, workers => $workers, pipe_size => 65536 * (1 + $i % 4), accept_timeout => 5 + $i % 5 . '.0');
		my ($exit, $out, $err) = $p->verb('reload');
		is($exit, 0, "reload $i") or diag("$out$err"), last if $exit;
		$n++;
		my $there = wait_until { living_workers($p) == $workers } 30;
		$wrong .= " $i: " . living_workers($p) . " instead of $workers workers" if !$there;
	}
	is($n, $long ? 200 : 30, "$n reloads under load");
	is($wrong, '', 'workers came and went as told');
	is(end_load($l), 0, 'the load comes to its end');
	my $sum = sum_of($l);
	nothing_lost($sum, 50, 'under reloads');
	is($sum->{kept}{again} + $sum->{churn}{again}, 0, 'nobody had to come twice');
	is($sum->{churn}{done}, $sum->{churn}{asked}, 'each short pair that was asked for');
	cmp_ok($sum->{churn}{done}, '>', 5 * $n, 'and there were many');
	is(count($p, qr/ ended .*reason=(?:worker_lost|stopped|internal)/), 0, 'no pair had a bad end');
	is(count($p, qr/ worker_killed | rescue worker=/), 0, 'no worker was killed');
	is($p->{d}->stop, 0, 'it stops');
}
hyper_done();
