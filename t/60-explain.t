#!/usr/bin/perl
# Guards: with the real programs, a call of A's application to B that cannot be brokered fails with an error that tells ten causes apart and says what to do, and `proxy explain` at P says the same of its session.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use IO::Select ();
use IO::Socket::INET ();
use Test::More;
use Time::HiRes qw(time);

my $socket = tmp() . '/admin.sock';
my $life = 1.0 * slow_factor();
my $m = mesh(directory => 'json', workers => 1, start => 0, proxy => sprintf('token_timeout = %.2f; table_slots = 2; max_tokens_per_operator = 1;', $life),
	hyper => { 'hd-1' => sprintf("call_timeout = %.2f;\n", 6 * $life + 4), 'hd-2' => "reconnect_max = 1;\n" });
write_file("$m->{dir}/proxy/002.cfg", qq(admin_socket = "$socket";\n));

# Each server reads a directory of its own, so each can be told something else. hd-3 is like hd-2, and is not there.
sub directory {
	my ($who, $change) = @_;
	my $all = HyperMesh::records($m)->{records};
	push @$all, map { { %$_, name => 'hd-3' } } grep { $_->{name} eq 'hd-2' } @$all;
	push @$all, map { { %$_, name => 'hd-4' } } grep { $_->{name} eq 'hd-2' } @$all;
	$all = $change->($all) if $change;
	write_file("$m->{dir}/directory-$who/001_default.json", json_text({ records => $all }));
	write_file("$m->{dir}/directory-$who/002_certificates.json", read_file(certs() . '.records/002_certificates.json'));
	return;
}
for my $who (qw(ph hd-1 hd-2)) {
	directory($who);
	write_file("$m->{dir}/$who/002.cfg", qq(directory = { settings = { path = "$m->{dir}/directory-$who"; }; };\n));
}
$m->start_all;

sub verb { return run_program([ program('proxy'), @_ ], env => { PROXY_SETTINGS => "$m->{dir}/proxy" }) }
sub stories { my ($exit, $out, $err) = verb('explain', $_[0], '--json'); return $exit == 0 ? json_value($out)->{stories} : [] }
sub again { my ($name) = @_; $m->{$name}->stop; $m->start_one($name); return }
sub b_is_there { return $m->{ph}->wait_log(qr/ registered .*operator=hd-2/, 20) }
# hd-2 anew, with these settings besides
sub b_with {
	my ($settings) = @_;
	my $registered = $m->{ph}->count_log(qr/ registered .*operator=hd-2/);
	$m->{'hd-2'}->stop;
	write_file("$m->{dir}/hd-2/003.cfg", $settings);
	$m->start_one('hd-2');
	return wait_until { $m->{ph}->count_log(qr/ registered .*operator=hd-2/) > $registered } 20;
}

# What A's application reads, and what P says of it. `session` 0: it never came to P.
sub is_told {
	my ($name, $answer, %want) = @_;
	my $e = $answer->{error} // {};
	my $d = $e->{data} // {};
	is($e->{code}, $want{code}, "$name: code") or diag(json_text($answer));
	is(join(' ', grep { defined } @$d{qw(reason step)}), $want{what}, "$name: reason and step");
	like($e->{message}, $want{why}, "$name: the text says why");
	like($d->{help}, $want{help}, "$name: and what to do");
	return if !$want{stage};
	like($d->{session}, qr/^[0-9a-f]{12}$/, "$name: A knows the session") or return;
	my ($reason, $step) = @want{qw(reason at)};
	($reason, $step) = split / /, $want{what} if !$reason;
	wait_until { my $s = stories($d->{session}); @$s && $s->[0]{reason} } 10;
	my @story = @{ stories($d->{session}) };
	is(scalar @story, 1, "$name: explain by session") or return;
	is("$story[0]{stage}: $story[0]{reason} at $story[0]{step}", "$want{stage}: $reason at $step", "$name: explain says the same");
	like($story[0]{why}, $want{explained} // $want{why}, "$name: explain says why");
	like($story[0]{help}, qr/\w+ \w+/, "$name: and what to do");
	is((grep { $_->{session} eq $d->{session} } @{ stories('hd-1') })[0]{reason}, $reason, "$name: explain by operator");
	my ($exit, $out) = verb('explain', $d->{session});
	like($out, qr/^  $want{stage}: $reason, at step $step\n    why: .+\n    do:  .+$/m, "$name: explain as text");
	ok((wait_until { $m->{'hd-1'}->count_log(qr/ warn brokered side=a .*session=$d->{session} .*reason=$d->{reason} /) } 5), "$name: A's log has the same word");
	return;
}

# --- before P: A's own directory ---
is_told('B unknown to A', $m->call('hd-9._ping'), code => 1, what => 'unknown_operator', why => qr/recipient 'hd-9': no directory entry found/, help => qr/spelling/);

# --- B unknown: P's server has no entry of it ---
directory('ph', sub { return [ grep { $_->{name} ne 'hd-4' } @{ $_[0] } ] });
is_told('B unknown', $m->call('hd-4._ping'), code => 500, what => 'unknown_operator told', stage => 'not paired',
	why => qr/recipient 'hd-4': no directory entry found/, help => qr/spelling/);

# --- B not connected ---
is_told('B not connected', $m->call('hd-3._ping'), code => -32005, what => 'not_connected told', stage => 'not paired',
	why => qr/hd-3 has no standing connection to public-proxy-1\.ga/, help => qr/is the target's server running/);

# --- B not permitted: P's server may not ask hd-2, though hd-2 keeps a stream to it for something else ---
my $other = sub {
	my ($s) = grep { $_->{name} eq 'hd-2' && $_->{section} eq 'services' } @{ $_[0] };
	$_->{methods}[0]{permissions} = [ { group => $_->{name} eq 'echoes' ? 'proxy-providers' : 'nobody', rights => ['call'] } ]
		for grep { $_->{name} =~ /^(?:echoes|connection-requests)$/ } @{ $s->{data} };
	return $_[0];
};
directory('hd-2', $other);
is_told('B not permitted', $m->ping, code => 500, what => 'denied told', stage => 'not paired',
	why => qr/Permission denied for method '_connectionRequest' and client 'public-proxy-1\.ga'/, help => qr/permit/);
directory('hd-2');
# ... and A not by P: which never hears of it, so only A is told
directory('ph', sub { my ($s) = grep { $_->{name} eq 'public-proxy-1.ga' && $_->{section} eq 'services' } @{ $_[0] };
	$s->{data}[0]{methods}[0]{permissions}[0]{group} = 'nobody'; return $_[0] });
is_told('A not permitted', $m->ping, code => 500, what => 'denied asked', why => qr/public-proxy-1\.ga could not connect hd-1 to hd-2 .*Permission denied/, help => qr/permit/);
directory('ph');

# --- B refused ---
ok(b_with(qq(endpoint_allow = [ "localhost:1" ];\n)), 'hd-2 dials nobody');
is_told('B refused', $m->ping, code => -32006, what => 'refused told', stage => 'not paired',
	why => qr/hd-2 does not dial localhost:\d+ for public-proxy-1\.ga: endpoint_allow/, help => qr/log of the target/);

ok(b_with(''), 'hd-2 as before');

# --- B too late: it stands still ---
$m->{'hd-2'}->signal('STOP');
is_told('B too late', $m->ping, code => -32003, what => 'deadline told', stage => 'not paired', why => qr/could not reach hd-2: .*no answer/, help => qr/target's server/);

# --- quota, token table full: while the requests before wait for hd-2 ---
sub in_background {
	my ($operator, $n) = @_;
	my $c = certs();
	return map { open(my $fh, '-|', 'curl', '-sS', '-o', '/dev/null', '--noproxy', '*', '--max-time', 60, '--cacert', "$c/root.crt", '--cert', "$c/public-proxy-1.ga.crt", '--key', "$c/public-proxy-1.ga.key",
		'--resolve', "public-proxy-1.ga:$m->{port}{proxy}:127.0.0.1", '-H', 'Content-Type: application/json', '-d',
		json_text({ jsonrpc => '2.0', id => "x$_", method => 'requestConnection', params => { to => 'hd-2', channel => 'grpc_server', _client => { name => $operator->($_), entry => {
			name => $operator->($_), groups => [], channels => [ { type => 'grpc_client', settings => undef } ], services => [], certificates => [], settings => [], preferences => [], records => [], properties => undef } } } }),
		"https://public-proxy-1.ga:$m->{port}{proxy}/jsonrpc") or die $!; $fh } 1 .. $n;
}
sub waiting { my ($n, @fh) = @_; return wait_until { my ($exit, $out) = verb('tokens', '--json'); $exit == 0 && @{ json_value($out)->{tokens} } >= $n } 10 }
for my $case ([ 'quota', sub { 'hd-1' }, 1, code => -32002, what => 'quota issued', why => qr/hd-1 is at its limit of 1 tokens .*public\.max_tokens_per_operator/, help => qr/setting raised/ ],
	[ 'token table full', sub { "hd-1$_[0]" }, 2, code => -32001, what => 'busy issued', why => qr/public-proxy-1\.ga has no room for another token: .*public\.table_slots/, help => qr/later/ ]) {
	my ($name, $operator, $n, %want) = @$case;
	my ($told, @fh);
	for (1 .. 5) { # on a slow machine the tokens may be over before A has asked
		@fh = in_background($operator, $n);
		waiting($n);
		$told = $m->ping;
		last if ($told->{error}{data}{reason} // '') !~ /deadline/;
	}
	is_told($name, $told, %want, stage => 'refused');
	close $_ for @fh;
	wait_until { my ($exit, $out) = verb('tokens', '--json'); $exit == 0 && !@{ json_value($out)->{tokens} } } 20;
}
$m->{'hd-2'}->signal('CONT');

# --- draining ---
is((verb('drain'))[0], 0, 'P is drained');
is_told('draining', $m->ping, code => -32004, what => 'draining asked', stage => 'refused', why => qr/public-proxy-1\.ga is shutting down/, help => qr/another proxy/);
is((verb('undrain'))[0], 0, 'and back');

# --- A too late: its way to the endpoint takes longer than the token lives. The test stands before the endpoint. ---
my $gate = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 8, ReuseAddr => 1) or die "listen: $!";
write_file("$m->{dir}/proxy/003.cfg", 'public = { internal_endpoint = "localhost:' . $gate->sockport . qq("; };\n));
again('proxy');
sub way { my ($in) = @_; my $out = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $m->{port}{endpoint}) or die "connect: $!"; return [ $in, $out ] }
sub gate {
	my ($late) = @_; # 1: the second connection comes late; 0: the first
	my $c = certs();
	open(my $fh, '-|', 'curl', '-sS', '--noproxy', '*', '--max-time', 60, '--cacert', "$c/root.crt", '--cert', "$c/hd-1.crt", '--key', "$c/hd-1.key", '--resolve', "hd-1:$m->{port}{'hd-1.rpc'}:127.0.0.1",
		'-H', 'Content-Type: application/json', '-d', '{"jsonrpc":"2.0","method":"hd-2._ping","params":{},"id":"1"}', "https://hd-1:$m->{port}{'hd-1.rpc'}/jsonrpc") or die $!;
	my ($set, @held, @ways, %to) = (IO::Select->new($gate, $fh));
	my ($n, $end, $answer, $open_at) = (0, time + 40 * slow_factor(), '');
	while (time < $end) {
		for my $s ($set->can_read(0.05)) {
			if ($s == $gate) {
				my $in = $gate->accept // next;
				if ($n++ == $late) { push @held, $in; $open_at = time + 1.6 * $life; next }
				push @ways, way($in);
			} elsif ($s == $fh) {
				return json_value($answer) if !sysread $fh, $answer, 65536, length $answer;
				next;
			} else {
				my $n = sysread $s, my $data, 65536;
				my $to = $to{$s};
				if ($n) { syswrite $to, $data } else { $set->remove($s); shutdown $to, 1 }
				next;
			}
		}
		if (@held && time > $open_at) { push @ways, map { way($_) } splice @held }
		for my $w (splice @ways) { $set->add(@$w); @to{@$w} = reverse @$w }
	}
	return {};
}
local $SIG{PIPE} = 'IGNORE';
again('hd-1');
is_told('A too late', gate(1), code => -32003, what => 'expired paired', stage => 'not paired', why => qr/hd-1 and hd-2 did not both reach public-proxy-1\.ga within the \d+ ms of their token/,
	explained => qr/^A (?:or B )?too late: /, help => qr/internal_endpoint/);

$m->{$_}->stop for qw(hd-1 hd-2 ph proxy);

# --- directory stale: sd goes, and hd-2 trusts nothing that is older than a second ---
unlink glob "$m->{dir}/*/00[23].cfg";
$m = mesh(workers => 1, start => 0);
write_file("$m->{dir}/proxy/002.cfg", qq(admin_socket = "$socket";\n));
write_file("$m->{dir}/hd-2/002.cfg", "directory = { settings = { max_stale = 1; }; };\n");
$m->start_all;
ok($m->ping->{result}, 'with sd');
again('hd-1'); # which has no connection then
$m->{sd}->stop;
# A connection that came about while hd-2 still trusted what it had is of no use here, also when hd-2 refuses the call on it.
my $stale = wait_until { my $a = $m->ping; return $a if $a->{error}{data}{session}; again('hd-1'); return } 20;
is_told('directory stale', $stale || {}, code => -32007, what => 'stale told', stage => 'not paired',
	why => qr/hd-2: the directory could not be fetched and what is kept is too old/, help => qr/is sd running/);

hyper_done();
