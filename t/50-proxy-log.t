#!/usr/bin/perl
# Guards: a log file that is rotated under load by rename and SIGUSR1 loses and cuts no line, and the old file gets nothing more; JSON lines are JSON; log_ip hides addresses in every process.
use strict;
use warnings;
use ChaosTest;
use HyperTest;
use JSON::PP ();
use ProxyTest;
use Test::More;

my $file = tmp() . '/proxy.log'; # where the program's stderr goes as well
my $p = storm_proxy(workers => 2, outer => qq(log = "file:$file"; log_format = "json"; log_ip = "prefix";\n), start => 0);
# The ready line is JSON here.
$p->{d} = start('proxy', [ program('proxy'), 'run', 'public' ], env => { PROXY_SETTINGS => $p->{dir} }, ready => 0);
isnt($p->{d}->wait_log(qr/"event":"ready"/, 20), undef, 'ready') or BAIL_OUT($p->{d}->log_text);
my ($ready) = map { json_value($_) } grep { /"event":"ready"/ } split /\n/, $p->{d}->log_text;
($p->{port}, $p->{rpc}) = @$ready{qw(port jsonrpc_port)};
is(scalar(my @workers = split /,/, $ready->{workers}), 2, 'numbers and texts of the line are members');

sub inode { my ($path) = @_; return (stat $path)[1] // -1 }
sub has_open { my ($pid, $path) = @_; return (stat "/proc/$pid/fd/2")[1] == inode($path) }
my @pids = ($p->{d}->pid, @workers);

# Rotated as often as it goes while pairs are made, talk and end.
my $l = load($p, churn => 16, total => 1500, bytes => 2000, seconds => 300);
my ($n, $kept) = (0, 0);
my @old;
while ($l->is_running && $n < 500) {
	rename $file, "$file." . ++$n or die "rename: $!";
	push @old, "$file.$n";
	$p->{d}->signal('USR1');
	wait_until { -e $file && !grep { !has_open($_, $file) } @pids } 20 or last;
	my $size = -s $old[-1];
	wait_until { -s $old[-1] != $size } 0.01; # pairs go on being made meanwhile
	$kept++ if -s $old[-1] != $size;
}
is($l->wait_exit(300), 0, 'the load ends');
my $sum = sum_of($l);
is($sum->{churn}{done}, 1500, 'no pair was lost');
cmp_ok($n, '>=', 5, "rotated $n times meanwhile");
is($kept, 0, 'a file gets nothing more once the program has opened the new one');

my (%of, %bad, $addresses, %reasons);
my $read = sub {
	%of = %reasons = ();
	for my $path (@old, $file) {
		my $text = read_file($path);
		$bad{cut}++ if length $text && substr($text, -1) ne "\n";
		for my $line (split /\n/, $text) {
			my $v = eval { JSON::PP::decode_json($line) };
			if (!$v || grep { !defined $v->{$_} } qw(time program pid level event)) {
				$bad{$line}++;
				next;
			}
			$of{ $v->{session} }{ ($v->{program} =~ /worker/ ? 'worker ' : 'master ') . $v->{event} }++ if $v->{session} && $v->{event} ne 'pair_state';
			$addresses->{ $v->{peer} }++ if defined $v->{peer};
			$reasons{"$v->{session} $v->{program}"} .= $v->{reason} if $v->{event} eq 'ended';
		}
	}
	return scalar grep { $_->{'master ended'} } values %of;
};
wait_until { $read->() >= 1500 } 20;
is_deeply(\%bad, {}, 'every line of every file is one whole JSON object');
is(scalar(keys %of), 1500, 'every session is in the files');
my %want = map { $_ => 1 } ('worker paired', 'worker ended', 'master ended', map { "master $_" } qw(asked issued told parked confirmed answered paired pair));
$want{'worker arrived'} = 2;
$want{'worker parked'} = 1;
my %missing;
for my $session (keys %of) {
	for my $event (keys %want) {
		$missing{$event}++ if ($of{$session}{$event} // 0) != $want{$event};
	}
}
is_deeply(\%missing, {}, 'each with each of its lines, once: none was lost');
is_deeply([ keys %$addresses ], ['127.0.0.0/24'], 'addresses are shown as their networks');

# A folder that is gone: the old file is written on, and a line says so.
mkdir "$file.dir" or die $!;
rename $file, "$file.last" or die $!;
mkdir $file or die $!;
$p->{d}->signal('USR1');
ok(wait_until { read_file("$file.last") =~ /"event":"reopen","err":"[^"]*Is a directory/ } 10);
rmdir $file or die $!;
$p->{d}->signal('USR1');
ok(wait_until { -e $file && !grep { !has_open($_, $file) } @pids } 10);

# A worker that is started later writes there too.
kill 'KILL', $workers[0];
isnt($p->{d}->wait_log(qr/"program":"proxy-worker-0".*"event":"state"/, 20), undef, 'a new worker has the new file');
$p->{d}->signal('TERM');
is($p->{d}->wait_exit(20), 0, 'ends');

# A log that cannot be opened is a fault of the settings.
$p = proxy(start => 0, outer => qq(log = "file:/no/such/folder/log";\n));
my ($status, $out, $err) = run_program([ program('proxy'), 'run', 'public' ], env => { PROXY_SETTINGS => $p->{dir} });
is($status, 78, 'a file that cannot be opened: status 78');
like($err, qr{proxy: the setting log: /no/such/folder/log: No such file or directory}, 'and says which');
hyper_done();
